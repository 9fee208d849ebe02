<?php
// Loads WordPress for a task, and ends with an error instead of a page when something is wrong.

declare(strict_types=1);

$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1'; // WordPress wants to know, even here
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REMOTE_ADDR'] = '127.0.0.1';

require '/usr/share/wordpress/wp-load.php';

// fail ends the task with a message.
function fail(string $message): never
{
    fwrite(STDERR, "$message\n");
    exit(1);
}

// administrator is the password of the first administrator.
function administrator(): string
{
    $password = file_get_contents('/run/secrets/admin');
    if ($password === false || $password === '') {
        fail('cannot read the administrator\'s password');
    }
    return $password;
}
