"""What a server shows of itself over HTTP: metrics in Prometheus' formats, ``/healthz`` and ``/readyz``."""
