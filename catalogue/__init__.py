"""How parts are found: in our own packages and in plug-ins, listed nowhere. The pure packages and the shell use it."""
