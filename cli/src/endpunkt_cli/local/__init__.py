"""Deployments on this machine, as processes of the person who debugs them: no bus, no service, no upload."""
