"""Tuning: Optuna proposes candidates, seeds decide, fresh seeds say what the winner is worth.

`file` reads what is asked for, `proposals` asks Optuna, `race` says who is dropped, `search` is the
loop of all that, `folder` what is kept, and `results` what is read back. Every seed is trained by
an ordinary study; the function that trains it is handed in.
"""
