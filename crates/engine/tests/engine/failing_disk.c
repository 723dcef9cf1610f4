/* A disk that fails while a program runs: preloaded into the engine by `failing_disk.rs`.
 *
 * FAULTY_FILE is the path of the file that is concerned. FAULT is that of a file which says how it fails at the moment:
 * "erofs", nothing can be written to it; "eio", what was written cannot be synced; anything else, not at all.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Whether this is the file that is concerned. */
static int is_faulty(int fd)
{
	const char *faulty = getenv("FAULTY_FILE");
	char link[32], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (faulty == NULL || length < 0)
		return 0;
	path[length] = 0;
	return strcmp(path, faulty) == 0;
}

/* Whether the fault of this name is there at the moment, and concerns the file. */
static int fails(int fd, const char *fault)
{
	const char *control = getenv("FAULT");
	char now[8] = "";
	int before = errno, fails = 0;
	if (control != NULL && is_faulty(fd)) {
		int opened = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
		if (opened >= 0 && syscall(SYS_read, opened, now, sizeof now - 1) > 0)
			fails = strcmp(now, fault) == 0;
		syscall(SYS_close, opened);
	}
	errno = before;
	return fails;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	return fails(fd, "erofs") ? fail(EROFS) : syscall(SYS_write, fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	return fails(fd, "erofs") ? fail(EROFS) : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
	return fails(fd, "erofs") ? fail(EROFS) : syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
	return pwrite(fd, bytes, length, offset);
}

int fsync(int fd)
{
	return fails(fd, "eio") ? fail(EIO) : syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return fails(fd, "eio") ? fail(EIO) : syscall(SYS_fdatasync, fd);
}
