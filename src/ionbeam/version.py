"""The version of this code, as it stands in journal records and on the command line."""

VERSION = "0.1.0"
