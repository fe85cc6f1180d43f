"""What an operator of the server sees of it: logs, metrics, traces. None of it is about people.

Three views of one call, told apart by what they are for: a line in the log for each call
(``logs``), numbers over all of them (``metrics``, shown by ``exporter``), and, where somebody asks
for it, the time that each step took (``tracing``). Labels, fields and attributes are ids of
terminals and operators, methods, statuses, reasons and figures; never what a caller sent.
"""
