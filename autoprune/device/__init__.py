"""How long networks take where they will run: measured tables, and rooflines of devices that are not at hand."""
