"""The HTTP door: an OpenAI-compatible API in front of the engine."""
