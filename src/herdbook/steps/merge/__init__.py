"""Dense merges: several models of one form become one."""
