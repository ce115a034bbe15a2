"""How the anchors of a table are chosen, one class per place where an index gets its leaves from; `engine/selectors.py` owns them."""
