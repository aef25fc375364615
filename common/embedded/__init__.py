"""Private servers and the supervisor of a run on one machine.

`make demo` and `make test` must work on a machine that has neither PostgreSQL nor Redis nor
RabbitMQ, and must leave nothing behind. This package starts private copies of them
(`cluster.Servers`), runs the service processes (`supervisor.Supervisor`), and sees to it that all
of it ends with the process that asked for it, however that process ended (`guardian`).

The modules `guardian`, `process_table`, `install`, `rabbitmq_packages` and `leftovers` need the
standard library only: they run before, or outside, the virtual environment.
"""
