"""``python -m pennyweight.command``: the command without its installed script."""

from pennyweight.command import main

main()
