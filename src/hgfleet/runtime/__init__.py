"""Clock, retry, lifecycle and observability for every process."""
