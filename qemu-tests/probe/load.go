package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func loadAttempts() []attempt {
	return []attempt{
		{"fork-bomb", forkBomb},
		{"fill-memory", fillMemory},
		{"fill-disk", fillDisk},
		{"shout", shout},
		{"die", func([]string) (string, error) {
			time.AfterFunc(100*time.Millisecond, func() { os.Exit(3) }) // after the answer
			return "dying", nil
		}},
	}
}

// forkBomb forks until no more processes can be had, and tells how many there were. They end with this call.
func forkBomb([]string) (string, error) {
	if os.Getpid() != 1 {
		return "", errors.New("not in a container of its own: this would hurt the machine")
	}
	var all []int
	defer func() {
		for _, pid := range all {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
		}
	}()
	for len(all) < 5000 {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return "", fmt.Errorf("after %d processes: %w", len(all), errno)
		}
		if pid == 0 { // the child has no scheduler, so it must not do anything but wait to be killed
			for {
				unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
		all = append(all, int(pid))
	}
	return fmt.Sprint(len(all)), nil
}

// fillMemory takes as many MiB as it is told to, and touches them.
func fillMemory(args []string) (string, error) {
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	var all [][]byte
	for range mib {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	return fmt.Sprint(len(all)), nil
}

// fillDisk writes so many MiB that do not compress to a file in the folder. With a third argument the file stays.
func fillDisk(args []string) (string, error) {
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return "", err
	}
	f, err := os.Create(filepath.Join(args[0], "filler"))
	if err != nil {
		return "", err
	}
	b := make([]byte, 1<<20)
	seed := uint64(88172645463325252) // xorshift64
	written := 0
	for err == nil && written < mib {
		for i := range b {
			seed ^= seed << 13
			seed ^= seed >> 7
			seed ^= seed << 17
			b[i] = byte(seed)
		}
		if _, err = f.Write(b); err == nil {
			written++
		}
		if err == nil && written%4 == 0 {
			err = f.Sync()
		}
	}
	err = errors.Join(err, f.Close())
	if len(args) < 3 {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	if err != nil {
		return "", fmt.Errorf("after %d MiB: %w", written, err)
	}
	return fmt.Sprint(written), nil
}

// shout writes as many MiB of lines to standard output as it is told to.
func shout(args []string) (string, error) {
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	line := make([]byte, 128)
	for i := range line {
		line[i] = 'a' + byte(i%26)
	}
	line[127] = '\n'
	began := time.Now()
	for n := 0; n < mib<<20; n += len(line) {
		if _, err := os.Stdout.Write(line); err != nil {
			return "", err
		}
	}
	return fmt.Sprint(time.Since(began).Seconds()), nil
}
