"""Lower bounds on epsilon from attacks that were run: they find a broken mechanism, and never prove a whole one."""
