"""A forward run on stand-ins: what it does becomes graphs, one for each way through it; nothing real is changed."""
