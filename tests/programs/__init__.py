"""Programs that tests run in processes of their own: `python("from programs import threads; threads.descriptors()")`."""
