"""How the weights of the embedded backbone were made; `tools/distill_nano.py` is the program."""
