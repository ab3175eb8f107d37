"""Everything captrain writes to a disk goes through here. Standard library only."""
