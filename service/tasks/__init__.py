"""Tasks: what the worker process can be asked to do; each public function of a module here, as `module.function`."""
