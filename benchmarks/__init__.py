"""Measuring Herald on one machine: the whole system, a load that costs little, and who spends which CPU time."""
