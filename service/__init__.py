"""The HTTP door: an autoscaling endpoint that speaks OpenAI's language, on Ray Serve."""

from service.application import application

__all__ = ["application"]
