"""Candidates, carriers, the plan of a scan and the running of it."""
