"""IBM TrueNorth: crossbar cores, their kernel and a second model of them, and how a `Network` becomes cores."""
