"""Faults: processes are killed, frozen and set to another time, disks fill, files rot; nothing promised is lost."""
