"""The airspeed velocity suite. Shapes and inputs are frozen: new ones are appended."""
