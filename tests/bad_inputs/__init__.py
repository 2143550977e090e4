"""Invocations of the command with bad input, and what it must do with each.

`python -m tests.bad_inputs` runs all of them, `python -m tests.bad_inputs WORD...` those whose
names contain one of the words. A case passes if the exit status is right, stderr is one line
`mbrl: ...` with the expected text, stdout is empty, nothing in the working folder has changed
except what the case allows, and all this takes less than a minute.
"""
