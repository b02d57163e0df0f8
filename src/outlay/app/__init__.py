"""Assembly: config, CLI, console. The only room that reads the environment."""
