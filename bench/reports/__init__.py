"""Tables, summaries and figures of measured rows."""
