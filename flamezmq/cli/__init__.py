"""The commands.  They use what every user of the package has, and nothing behind it."""
