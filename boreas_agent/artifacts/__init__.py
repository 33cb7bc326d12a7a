"""Artifacts: fetched, verified, unpacked, and made into releases.

What is fetched goes into a cache under its SHA-256 first, and from there into the folder of a release, which is made whole beside
its place and then renamed: a release is there or it is not. Nothing of an app that runs is touched by any of this.
"""
