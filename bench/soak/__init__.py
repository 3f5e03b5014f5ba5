"""Random problems between guard pages, and random actions of many threads, until something is wrong."""
