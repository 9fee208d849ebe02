package vm

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Memory is what the system in the machine says of its memory, through its balloon driver. All numbers are bytes.
type Memory struct {
	Total     int64 `json:"stat-total-memory"`
	Free      int64 `json:"stat-free-memory"`
	Available int64 `json:"stat-available-memory"` // what programs could have without swapping
	Caches    int64 `json:"stat-disk-caches"`      // pages that hold contents of files
}

// Used is what is neither free nor page cache.
func (m Memory) Used() int64 { return m.Total - m.Free - m.Caches }

// errBalloon is the answer where no balloon driver runs.
var errBalloon = errors.New("cannot read the memory in use: the system has no balloon driver (virtio_balloon)")

// balloon is the path of the balloon device in QEMU's object tree.
const balloon = "/machine/peripheral/balloon"

// Memory asks the system for its memory in use. Where no driver answers it waits until ctx ends.
func (v *VM) Memory(ctx context.Context) (Memory, error) {
	poll := map[string]any{"path": balloon, "property": "guest-stats-polling-interval", "value": 1}
	if _, err := v.qmp.execute(ctx, "qom-set", poll); err != nil {
		return Memory{}, err
	}
	asked := time.Now().Unix()
	for {
		answer, err := v.qmp.execute(ctx, "qom-get", map[string]any{"path": balloon, "property": "guest-stats"})
		if err != nil {
			return Memory{}, errors.Join(errBalloon, err)
		}
		var stats struct {
			Stats Memory `json:"stats"`
			Last  int64  `json:"last-update"` // Unix time in seconds
		}
		if err := json.Unmarshal(answer, &stats); err != nil {
			return Memory{}, err
		}
		if stats.Last > asked {
			return stats.Stats, nil
		}
		select {
		case <-ctx.Done():
			return Memory{}, errors.Join(errBalloon, context.Cause(ctx))
		case <-v.ended:
			return Memory{}, ErrEnded
		case <-time.After(retry):
		}
	}
}
