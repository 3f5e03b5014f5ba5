"""The demo: who is speaking?  A bidirectional layer tells nine speakers apart by recordings of one vowel sequence.

data.py loads the recordings (DATA.md says whose they are), model.py is the classifier, train.py trains it, and show.py and
plot.py present it; `gpurnn demo` is the way in.
"""
