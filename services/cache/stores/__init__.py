"""Where answers are kept, and who waits for one."""
