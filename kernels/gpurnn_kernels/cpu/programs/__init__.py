"""Programs make calls ready: they fill in records, find memory and give commands to the threads."""
