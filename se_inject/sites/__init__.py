"""Which values of a model get a gate: reads, never writes."""
