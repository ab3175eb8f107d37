"""Fuzzing of everything that reads files of strangers: `make fuzz`, or `PYTHONPATH=tests python -m fuzz --help`.

`parsers/` lists what reads, each with small valid inputs and the call that the product makes. `mutate` changes them.
`harness` runs each change in a child process under limits of time and memory. `found/` keeps what once went wrong;
`test_fuzz` replays that.
"""
