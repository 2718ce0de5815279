"""The command line: `plumbline serve`, `demo`, `replay`, `migrate`, `sign-in`, `version`."""
