"""What answers were worth: pairs, their judges, outcomes, drift."""
