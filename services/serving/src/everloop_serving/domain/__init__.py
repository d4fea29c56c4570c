"""Pure rules of serving: what a request, an artifact and a deployment must look like."""
