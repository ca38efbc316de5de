"""Programs: studies/ has tables and figures of papers, benchmarks/ times and memory, checks/ tries to break promises.

`train` and `evaluate` are doors to the commands of `localgrad.cli`; `tables` and `rows` write what studies and
benchmarks find, and `stolen_time` makes measurements again that the host of a virtual machine disturbed.
"""
