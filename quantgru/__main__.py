"""python -m quantgru"""

from quantgru.cli.main import main

main()
