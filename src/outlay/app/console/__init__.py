"""The console: the operators' JSON API, metrics and health in a process of its own. It never touches a request."""
