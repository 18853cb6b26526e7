"""What every other room stands on: errors, files written as a whole, progress, the device, compiled and recorded code.

May import: nothing else of the package.
"""
