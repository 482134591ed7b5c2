/* Preloaded: from CLOCK_BACK_AFTER seconds after its first reading, a process's clock of the day is
   a day behind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int real(clockid_t id, struct timespec *now) {
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
  return next(id, now);
}

static time_t behind(void) {
  static time_t began;
  struct timespec now;
  real(CLOCK_MONOTONIC, &now);
  if (!began) began = now.tv_sec;
  const char *after = getenv("CLOCK_BACK_AFTER");
  return after && now.tv_sec - began >= atoi(after) ? 24 * 60 * 60 : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  int status = real(id, now);
  if (id == CLOCK_REALTIME) now->tv_sec -= behind();
  return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  int status = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return status;
}

time_t time(time_t *also) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (also) *also = exact.tv_sec;
  return exact.tv_sec;
}
