"""The shell: everything that touches the network, the disk, the clock or a database."""
