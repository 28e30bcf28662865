"""Where instances run. One compute so far: processes of this machine."""
