"""Parts of the operating system that processes share: atomic files and folders, locks, and the user's folders.

files    replace one file in one step
folders  publish a whole folder in one step
locks    flock on a file or a folder
scratch  temporary folders, which the next command removes after a kill
paths    where this user's configuration, caches, state and store are
sync     names in folders that survive a power cut
"""
