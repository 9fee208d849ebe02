package updater

import "allotment/updater/config"

// Config is what the supervisor tells the daemon.
type Config = config.Config

// ReadConfig reads and checks the file at path.
func ReadConfig(path string) (Config, error) { return config.Read(path) }

// StatusFile is the name of the daemon's status in Config.Run.
const StatusFile = config.StatusFile

// Status is what the daemon is doing, for people.
type Status = config.Status

// State is one word for what the daemon is doing.
type State = config.State

// The states of the daemon.
const (
	Idle       = config.Idle
	Checking   = config.Checking
	Waiting    = config.Waiting
	Fetching   = config.Fetching
	Ready      = config.Ready
	Restarting = config.Restarting
	Failed     = config.Failed
	Off        = config.Off
)
