"""The command line: train, evaluate, data; nothing else of the library reads flags."""
