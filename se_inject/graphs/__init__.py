"""What an fx graph tells: operations, layers, ancestry, channels, mutation."""
